-- database: homeserver_before_20260101T000000Z
-- in place
-- A database whose name is one of ours for another.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
