-- Foreign data: wrappers, servers of a version, mappings with passwords and of PUBLIC, tables with options, an own wrapper.
CREATE ROLE foreign_servers_role;
CREATE EXTENSION postgres_fdw;
CREATE SERVER remote TYPE 'x' VERSION '1.0' FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'no''where', dbname 'd', fetch_size '50');
CREATE USER MAPPING FOR foreign_servers_role SERVER remote OPTIONS (user 'u', password 'it''s a secret');
CREATE USER MAPPING FOR PUBLIC SERVER remote OPTIONS (user 'p');
CREATE FOREIGN TABLE f (a int OPTIONS (column_name 'A a'), b text NOT NULL DEFAULT 'x', CHECK (a > 0)) SERVER remote OPTIONS (schema_name 's', table_name 't');
GRANT USAGE ON FOREIGN SERVER remote TO foreign_servers_role;
CREATE FOREIGN DATA WRAPPER dummy OPTIONS (debug 'true');
GRANT USAGE ON FOREIGN DATA WRAPPER dummy TO foreign_servers_role;
CREATE SERVER "of dummy" FOREIGN DATA WRAPPER dummy;
CREATE FOREIGN TABLE g () SERVER "of dummy";
COMMENT ON SERVER remote IS 'far away';
COMMENT ON FOREIGN TABLE f IS 'foreign';
ALTER SERVER remote OWNER TO foreign_servers_role;
CREATE TABLE parent (a int);
CREATE FOREIGN TABLE child (x int) INHERITS (parent) SERVER "of dummy";
