-- Generated columns: of expressions, of functions named with their schema, in children, and over a domain.
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
CREATE DOMAIN small AS int CHECK (VALUE < 1000);
CREATE TABLE g (a int, b int GENERATED ALWAYS AS (public.twice(a)) STORED, c small GENERATED ALWAYS AS (a + 1) STORED);
CREATE TABLE child (d text GENERATED ALWAYS AS ('x' || a) STORED) INHERITS (g);
CREATE INDEX ON g (b);
INSERT INTO g (a) SELECT generate_series(1, 20);
INSERT INTO child (a) VALUES (7);
