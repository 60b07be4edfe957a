-- Tables without a column that have rows, with dropped columns first, last and only, and with 1600.
CREATE TABLE none ();
INSERT INTO none DEFAULT VALUES;
INSERT INTO none DEFAULT VALUES;
CREATE TABLE dropped (a int, b int, c int, d int);
INSERT INTO dropped SELECT n, n, n, n FROM generate_series(1, 5) n;
ALTER TABLE dropped DROP COLUMN a, DROP COLUMN d;
ALTER TABLE dropped ADD COLUMN e int DEFAULT 7;
CREATE TABLE all_dropped (a int);
INSERT INTO all_dropped VALUES (1), (2), (3);
ALTER TABLE all_dropped DROP COLUMN a;
DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' || (SELECT string_agg('c' || n || ' bool', ', ') FROM generate_series(1, 1600) n) || ')'; END $$;
INSERT INTO wide (c1, c1600) VALUES (true, false);
