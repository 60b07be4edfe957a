-- Tables that refer to each other and to themselves: no order of loading them is right.
CREATE TABLE hen (id int PRIMARY KEY, egg int NOT NULL);
CREATE TABLE egg (id int PRIMARY KEY, hen int NOT NULL REFERENCES hen DEFERRABLE INITIALLY DEFERRED, twin int REFERENCES egg);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO hen SELECT n, n FROM generate_series(1, 10) n;
INSERT INTO egg SELECT n, n, 11 - n FROM generate_series(1, 10) n;
COMMIT;
