-- alone: dump 40
-- not taken: acl public.TABLE t
-- differs: not_taken_acl_a
-- Privileges that somebody has granted on who may not use the schema any more: what others did holds, and cannot be repeated.
CREATE ROLE not_taken_acl_a;
CREATE ROLE not_taken_acl_b;
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
GRANT SELECT ON t TO not_taken_acl_a WITH GRANT OPTION;
SET ROLE not_taken_acl_a;
GRANT SELECT ON t TO not_taken_acl_b;
RESET ROLE;
REVOKE USAGE ON SCHEMA public FROM PUBLIC;
CREATE TABLE zz_last (a int);
INSERT INTO zz_last VALUES (7);
