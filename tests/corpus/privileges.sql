-- differs across majors: MAINTAIN
-- Privileges of every kind: of columns, granted on by others, taken from the owner, and those that a major adds (MAINTAIN).
CREATE ROLE privileges_owner;
CREATE ROLE privileges_a;
CREATE ROLE privileges_b;
GRANT CREATE ON SCHEMA public TO privileges_owner;
SET ROLE privileges_owner;
CREATE TABLE audit (a int, b text);
REVOKE DELETE, TRUNCATE ON audit FROM privileges_owner;
GRANT SELECT (a), UPDATE (b) ON audit TO privileges_a;
GRANT INSERT ON audit TO privileges_a WITH GRANT OPTION;
CREATE TABLE nobodys ();
REVOKE ALL ON nobodys FROM privileges_owner;
CREATE SEQUENCE s;
GRANT USAGE ON SEQUENCE s TO privileges_b;
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE ALL ON FUNCTION f FROM PUBLIC, privileges_owner;
CREATE TYPE pair AS (a int);
REVOKE USAGE ON TYPE pair FROM PUBLIC;
SET ROLE privileges_a;
GRANT INSERT ON audit TO privileges_b;
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON LANGUAGE plpgsql TO privileges_b;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT SELECT ON pg_catalog.pg_authid TO privileges_b;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC;
GRANT SELECT (rolpassword) ON pg_catalog.pg_authid TO privileges_a;
