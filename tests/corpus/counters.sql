-- Tables and sequences that change whenever somebody looks: a trigger of the superuser's that counts.
CREATE SEQUENCE counter;
CREATE TABLE t (a int DEFAULT nextval('counter'), b int);
INSERT INTO t (b) SELECT generate_series(1, 10);
CREATE FUNCTION count_it() RETURNS bool LANGUAGE sql VOLATILE AS $$ SELECT nextval('public.counter') > 0 $$;
CREATE VIEW counted AS SELECT nextval('counter'::regclass) AS n;
CREATE DOMAIN counting AS int CHECK (VALUE > 0 AND public.count_it());
CREATE TABLE u (a counting);
INSERT INTO u VALUES (1), (2), (3);
