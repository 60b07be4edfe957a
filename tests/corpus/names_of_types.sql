-- differs across majors: ; Type: TYPE; 
-- until: 13
-- Ranges of a server that has no multiranges yet, with names that these want to have, and types whose arrays' names were taken.
CREATE TYPE _first AS (a int);
CREATE TYPE first AS ENUM ('x', 'y');
CREATE TABLE __first (a first[], b _first[]);
INSERT INTO __first VALUES ('{x,y}', ARRAY[ROW(1)::_first]);
CREATE TYPE numbers AS RANGE (subtype = int2);
CREATE TYPE many_multirange AS (a int);
CREATE TYPE many_range AS RANGE (subtype = float8);
CREATE TABLE t (a numbers[], b many_range, c many_multirange);
INSERT INTO t VALUES (ARRAY['[1,2)'::numbers], '(1.5,]', ROW(3));
CREATE DOMAIN numbers_small AS numbers CHECK (upper(VALUE) < 5::int2);
CREATE TABLE u (a numbers_small, b numbers_small[]);
INSERT INTO u VALUES ('[1,2)', ARRAY['[1,2)'::numbers_small]);
