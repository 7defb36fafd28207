"""One round trip for an Idempotency-Key: try for its lock, and only then look for its answer.

Volatile, so that the look sees what was committed before the lock was had: within one plain statement it would not.
Safe on a live table: a function only, which processes of the version before do not call.
"""

from django.db import migrations

CREATE = """
CREATE OR REPLACE FUNCTION generations_claim_key(
    lock_number bigint, wanted_organization bigint, wanted_is_test boolean, wanted_key text, since timestamptz
)
RETURNS TABLE (is_first boolean, reference text, digest bytea, body text, ignored_fields text)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    is_first := pg_try_advisory_xact_lock(lock_number);
    SELECT record.reference, record.digest, record.body, record.ignored_fields
      INTO reference, digest, body, ignored_fields
      FROM generations_idempotencyrecord AS record
     WHERE record.organization_id = wanted_organization AND record.is_test = wanted_is_test
       AND record.key = wanted_key AND record.created_at > since;
    RETURN NEXT;
END
$$
"""
DROP = "DROP FUNCTION generations_claim_key(bigint, bigint, boolean, text, timestamptz)"


class Migration(migrations.Migration):
    dependencies = [("generations", "0007_usage_by_hour")]
    operations = [migrations.RunSQL(CREATE, DROP)]
