-- since: 18
-- Constraints that nobody enforces, and NOT NULL with names and not valid, which 18 has.
CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE t (id int CONSTRAINT given NOT NULL, r int REFERENCES a NOT ENFORCED, CHECK (id > 0) NOT ENFORCED);
INSERT INTO t VALUES (-1, 99);
CREATE TABLE n (a int);
INSERT INTO n VALUES (NULL);
ALTER TABLE n ADD CONSTRAINT n_there NOT NULL a NOT VALID;
