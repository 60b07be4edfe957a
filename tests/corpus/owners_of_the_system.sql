-- since: 15
-- What belongs to roles that every server has, or is granted to them.
CREATE ROLE owners_of_the_system_a;
ALTER DATABASE owners_of_the_system OWNER TO owners_of_the_system_a;
CREATE SCHEMA s AUTHORIZATION pg_database_owner;
CREATE TABLE s.t (a int);
INSERT INTO s.t VALUES (1);
ALTER TABLE s.t OWNER TO pg_database_owner;
CREATE TABLE u (a int);
ALTER TABLE u OWNER TO pg_read_all_data;
CREATE TABLE v (a int);
GRANT SELECT ON v TO pg_monitor WITH GRANT OPTION;
GRANT INSERT (a) ON v TO pg_database_owner;
CREATE POLICY p ON v TO pg_database_owner, pg_monitor USING (true);
ALTER DEFAULT PRIVILEGES FOR ROLE owners_of_the_system_a GRANT SELECT ON TABLES TO pg_read_all_stats;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO owners_of_the_system_a;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() FROM pg_monitor;
GRANT pg_write_all_data TO owners_of_the_system_a WITH ADMIN OPTION;
GRANT pg_read_all_settings TO pg_read_server_files;
SELECT lo_create(4711);
ALTER LARGE OBJECT 4711 OWNER TO pg_database_owner;
