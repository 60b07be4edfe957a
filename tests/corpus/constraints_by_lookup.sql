-- CHECK by a function that looks for the row in another table, which a dump loads first.
CREATE TABLE a_kinds (k text PRIMARY KEY);
INSERT INTO a_kinds SELECT 'k' || n FROM generate_series(1, 10) n;
CREATE FUNCTION is_kind(text) RETURNS bool LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM public.a_kinds WHERE k = $1)';
CREATE TABLE things (id int, k text CHECK (public.is_kind(k)));
INSERT INTO things SELECT n, 'k' || (1 + n % 10) FROM generate_series(1, 1000) n;
