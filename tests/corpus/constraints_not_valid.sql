-- Constraints that were never checked of rows that break them: CHECK, foreign keys, and their later repair.
CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE t (id int, r int);
INSERT INTO t VALUES (-1, 99);
ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0) NOT VALID;
ALTER TABLE t ADD CONSTRAINT of_a FOREIGN KEY (r) REFERENCES a NOT VALID;
ALTER TABLE t ADD CONSTRAINT inherited CHECK (r > 0) NO INHERIT NOT VALID;
COMMENT ON CONSTRAINT positive ON t IS 'not yet';
