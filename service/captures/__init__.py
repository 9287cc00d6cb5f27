"""Photos that must not be lost: a folder of files and an index, written so that what was acknowledged survives.

records   what a capture is, on disk and in JSON; what can go wrong
files     durable writing, and where things lie
index     SQLite: the order, the idempotency keys, what was forwarded
recovery  after a crash or a damaged index: sidecars and files are the truth, the index is rebuilt from them
store     the one writer; everything goes through it
outbox    forwards captures to a URL or a folder
retention deletes old captures, unless the clock cannot be trusted
export    zip, CSV and COCO
gtin      check digits
"""
