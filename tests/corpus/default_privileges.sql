-- differs across majors: default_privileges_b REVOKE
-- Default privileges: of several roles, in a schema and everywhere, on every kind, and one that revokes what PUBLIC has.
CREATE ROLE default_privileges_a;
CREATE ROLE default_privileges_b;
CREATE SCHEMA s AUTHORIZATION default_privileges_a;
ALTER DEFAULT PRIVILEGES FOR ROLE default_privileges_a GRANT SELECT, INSERT ON TABLES TO default_privileges_b WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE default_privileges_a IN SCHEMA s GRANT USAGE ON SEQUENCES TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE default_privileges_a REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE default_privileges_b REVOKE USAGE ON TYPES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO default_privileges_b;
ALTER DEFAULT PRIVILEGES FOR ROLE default_privileges_b REVOKE ALL ON TABLES FROM default_privileges_b;
SET ROLE default_privileges_a;
CREATE TABLE s.t (a serial);
CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
