-- CHECK that asks another table by a function: the order of loading decides whether it holds.
CREATE TABLE limits (n int);
INSERT INTO limits VALUES (100);
CREATE FUNCTION within(int) RETURNS bool LANGUAGE sql STABLE AS 'SELECT $1 <= coalesce((SELECT max(n) FROM public.limits), 1000)';
CREATE TABLE a_first (n int CHECK (public.within(n)));
INSERT INTO a_first SELECT generate_series(1, 50);
