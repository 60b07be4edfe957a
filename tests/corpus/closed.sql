-- alone: dump 40
-- alone: online 40
-- check: does not allow connections
-- no restore
-- A database that lets nobody in: it cannot be backed up, which is told, and an upgrade does not begin.
CREATE TABLE t (a int);
\connect template1
ALTER DATABASE closed ALLOW_CONNECTIONS false;
