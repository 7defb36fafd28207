"""Endpoints by mode: what fails in test mode pauses nothing that is live.

Safe on a live table: a column without a rewrite, and the new constraint and trigger in place of the old ones in one
transaction; the program of the version before never writes endpoints itself.
"""

import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keys_and_members"),
        ("webhooks", "0004_redelivery"),
    ]

    operations = [
        pgtrigger.migrations.RemoveTrigger(
            model_name="delivery",
            name="tell_endpoint",
        ),
        migrations.RemoveConstraint(
            model_name="endpoint",
            name="webhooks_endpoint_once",
        ),
        migrations.AddField(
            model_name="endpoint",
            name="is_test",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Tests fail by themselves: they pause nothing that is live."
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="delivery",
            trigger=pgtrigger.compiler.Trigger(
                name="tell_endpoint",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    declare="DECLARE needed_at timestamptz;",
                    func="\n    needed_at := CASE\n        WHEN TG_OP = 'INSERT' OR OLD.endpoint_id IS NULL THEN\n            CASE WHEN NEW.due_at IS NOT NULL THEN GREATEST(NEW.due_at, NEW.leased_until) END\n        WHEN NEW.leased_until IS NULL THEN LEAST(OLD.due_at, NEW.due_at)  -- the old one where a place became free\n    END;  -- a claim sees to its endpoints itself\n    IF NEW.endpoint_id IS NULL THEN\n        SELECT id INTO NEW.endpoint_id FROM webhooks_endpoint\n         WHERE organization_id = NEW.organization_id AND origin = NEW.host AND is_test = NEW.is_test;\n    END IF;\n    IF NEW.endpoint_id IS NULL THEN\n        INSERT INTO webhooks_endpoint\n               (organization_id, origin, is_test, standing, failure_count, last_error, trip_count)\n        VALUES (NEW.organization_id, NEW.host, NEW.is_test, 1, 0, '', 0)\n            ON CONFLICT (organization_id, origin, is_test) DO NOTHING;\n        SELECT id INTO STRICT NEW.endpoint_id FROM webhooks_endpoint\n         WHERE organization_id = NEW.organization_id AND origin = NEW.host AND is_test = NEW.is_test;\n    END IF;\n    IF needed_at IS NOT NULL THEN\n        PERFORM FROM webhooks_endpoint WHERE id = NEW.endpoint_id FOR NO KEY UPDATE;\n        UPDATE webhooks_endpoint SET due_at = needed_at\n         WHERE id = NEW.endpoint_id AND (due_at IS NULL OR due_at > needed_at);\n    END IF;\n    RETURN NEW;\n",
                    hash="7af86eafeba97abde19b56f5d4d08649e1c0d829",
                    operation='INSERT OR UPDATE OF "due_at", "leased_until", "endpoint_id"',
                    pgid="pgtrigger_tell_endpoint_e9617",
                    table="webhooks_delivery",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.AddConstraint(
            model_name="endpoint",
            constraint=models.UniqueConstraint(
                fields=("organization", "origin", "is_test"), name="webhooks_endpoint_one"
            ),
        ),
    ]
