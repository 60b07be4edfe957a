-- since: 14
-- Roles of all attributes, in circles as far as they may be, with admin option, settings, an expired and no password.
CREATE ROLE roles_a CREATEDB CREATEROLE REPLICATION BYPASSRLS LOGIN VALID UNTIL '2001-01-01';
CREATE ROLE roles_b NOINHERIT CONNECTION LIMIT 0;
CREATE ROLE roles_c SUPERUSER;
GRANT roles_a TO roles_b WITH ADMIN OPTION;
GRANT pg_read_all_data, pg_monitor TO roles_b;
GRANT roles_b TO roles_c;
ALTER ROLE roles_a SET work_mem = '9MB';
ALTER ROLE roles_a SET "my.own" TO 'x=y, ''z''';
COMMENT ON ROLE roles_b IS E'tab\there';
CREATE TABLE t ();
ALTER TABLE t OWNER TO roles_c;
