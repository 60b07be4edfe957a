-- A database without the schema public, and one made anew is in another file.
DROP SCHEMA public;
CREATE SCHEMA single;
CREATE TABLE single.t (a int);
INSERT INTO single.t VALUES (1);
