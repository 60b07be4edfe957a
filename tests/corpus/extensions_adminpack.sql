-- until: 16
-- check: adminpack
-- alone: dump 40
-- alone: online 40
-- An extension that the target does not have any more.
CREATE EXTENSION adminpack;
