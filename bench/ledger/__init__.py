"""How fast is the ledger beside what PostgreSQL itself can do? Run: python -m bench.ledger [MOVEMENTS] [SECONDS].

First MOVEMENTS movements (200,000 unless told; 5,000,000 for the bars) are written as they would be after a long life:
how long does a look at all of them take, how long a balance of the past, how many bytes does each need? Then, on top of
them and in turn, SECONDS each, by eight clients, on one account and on all of them: a yardstick, our own statements in
pgbench, the same from Python, and creations over HTTP.
"""
