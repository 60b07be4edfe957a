-- The language as it was before it became an extension (9.1), which old clusters have until today.
ALTER EXTENSION plpgsql DROP LANGUAGE plpgsql;
ALTER EXTENSION plpgsql DROP FUNCTION plpgsql_call_handler();
ALTER EXTENSION plpgsql DROP FUNCTION plpgsql_inline_handler(internal);
ALTER EXTENSION plpgsql DROP FUNCTION plpgsql_validator(oid);
DROP EXTENSION plpgsql;
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
