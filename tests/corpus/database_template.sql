-- create: IS_TEMPLATE true
-- in place
-- A database that is a template.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
