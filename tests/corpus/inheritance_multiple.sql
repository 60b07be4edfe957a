-- differs by dump: only_mine
-- Two parents with a column in common, a column that is local as well, and other defaults in the child.
CREATE TABLE one (a int DEFAULT 1, common text);
CREATE TABLE two (common text DEFAULT 'two', b int CHECK (b > 0));
CREATE TABLE child (common text DEFAULT 'both', only_mine int) INHERITS (one, two);
CREATE TABLE grandchild () INHERITS (child);
ALTER TABLE grandchild ALTER COLUMN a SET NOT NULL;
INSERT INTO one VALUES (1, 'x');
INSERT INTO child (a, common, b, only_mine) VALUES (2, 'y', 3, 4);
INSERT INTO grandchild (a, common, b, only_mine) VALUES (2, 'z', 4, 5);
