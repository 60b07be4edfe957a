-- differs by dump: own_first
-- A parent that got a column after its child had been made: it comes before the child's own in a dump.
CREATE TABLE parent (a int);
CREATE TABLE child (own_first text) INHERITS (parent);
ALTER TABLE parent ADD COLUMN later int DEFAULT 7;
ALTER TABLE child ALTER COLUMN later SET DEFAULT 8;
INSERT INTO child VALUES (1, 'x', 2);
