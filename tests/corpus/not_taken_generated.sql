-- no part
-- alone: nothing
-- not taken: table
-- A generated column by a function that calls another one by the search_path only: the rows are not taken, and all else is.
CREATE FUNCTION low(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE FUNCTION f_low(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN low($1); END';
CREATE TABLE g (v text, w text GENERATED ALWAYS AS (public.f_low(v)) STORED);
INSERT INTO g (v) VALUES ('X');
CREATE TABLE zz_last (a int);
INSERT INTO zz_last VALUES (7);
