-- Extensions in schemas of their own, moved, with privileges of ours on their functions, with members that we added.
CREATE ROLE extensions_schemas_role;
CREATE SCHEMA "Ext ensions";
CREATE EXTENSION citext SCHEMA "Ext ensions";
CREATE EXTENSION pgcrypto;
ALTER EXTENSION pgcrypto SET SCHEMA "Ext ensions";
CREATE EXTENSION ltree;
CREATE TABLE t (a "Ext ensions".citext UNIQUE, l ltree DEFAULT 'a.b');
INSERT INTO t VALUES ('Ada'), ('bob');
REVOKE EXECUTE ON FUNCTION "Ext ensions".gen_salt(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "Ext ensions".gen_salt(text) TO extensions_schemas_role;
CREATE FUNCTION depends() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION depends() DEPENDS ON EXTENSION ltree;
COMMENT ON EXTENSION ltree IS 'trees of labels';
