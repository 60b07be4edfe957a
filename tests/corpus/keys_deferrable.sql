-- Deferrable keys of all kinds, keys with actions on some columns, MATCH FULL, and a unique key that nulls break.
-- since: 15
CREATE TABLE a (x int, y int, PRIMARY KEY (x, y) DEFERRABLE, UNIQUE NULLS NOT DISTINCT (y));
CREATE TABLE b (x int UNIQUE DEFERRABLE INITIALLY DEFERRED, z int);
CREATE UNIQUE INDEX a_xy ON a (y, x) INCLUDE (x);
CREATE TABLE c (y int, x int, FOREIGN KEY (y, x) REFERENCES a (y, x) MATCH FULL ON DELETE SET NULL (x) ON UPDATE CASCADE DEFERRABLE);
INSERT INTO a VALUES (1, 2), (2, 3);
