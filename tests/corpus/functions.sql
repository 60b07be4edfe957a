-- Functions of all properties: variadic, defaults, sets, tables, windows, settings, support, costs, in C, internal, overloaded.
CREATE FUNCTION a(int, VARIADIC text[] DEFAULT '{x,"y z"}') RETURNS SETOF text LANGUAGE sql STRICT STABLE PARALLEL SAFE ROWS 7 COST 3 AS 'SELECT unnest($2)';
CREATE FUNCTION a(text) RETURNS TABLE (x int, "Y y" text) LANGUAGE plpgsql SECURITY DEFINER LEAKPROOF SET work_mem = '7MB' SET search_path = public, "$user" AS $f$ BEGIN RETURN QUERY SELECT 1, $q$it's; $$ -- $q$; END $f$;
CREATE FUNCTION w() RETURNS int8 LANGUAGE internal WINDOW AS 'window_row_number';
CREATE FUNCTION i(int, int) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'int4pl';
CREATE FUNCTION c() RETURNS int LANGUAGE plpgsql SET datestyle FROM CURRENT AS 'BEGIN RETURN 1; END';
CREATE FUNCTION o(IN a int, INOUT b text, OUT c int) LANGUAGE plpgsql AS 'BEGIN c := a; END';
CREATE FUNCTION poly(anyelement, anyarray) RETURNS anyelement LANGUAGE sql AS 'SELECT $1';
CREATE PROCEDURE p(INOUT x int DEFAULT 5) LANGUAGE plpgsql AS 'BEGIN x := x + 1; COMMIT; END';
CREATE FUNCTION dead() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM gone_since); END';
