-- alone: online 40
-- check: the triggers of foreign key of_halves_id_fkey of
-- differs: RI_ConstraintTrigger_
-- Keys of partitioned tables, whose triggers are switched off in one partition: a dump says so of a trigger whose name has its
-- number here.
CREATE TABLE halves (id int PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE half_0 PARTITION OF halves FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE half_1 PARTITION OF halves FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE of_halves (id int REFERENCES halves) PARTITION BY LIST (id);
CREATE TABLE of_halves_all PARTITION OF of_halves DEFAULT;
INSERT INTO halves SELECT generate_series(1, 10);
INSERT INTO of_halves VALUES (1), (2), (NULL);
ALTER TABLE of_halves_all DISABLE TRIGGER ALL;
