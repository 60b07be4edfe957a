-- differs by dump: reordered
-- The columns of a child that was made before it inherited come in the parent's order from a dump.
CREATE TABLE parent (a int, b text);
CREATE TABLE child (b text, reordered int, a int);
ALTER TABLE child INHERIT parent;
INSERT INTO child VALUES ('b', 2, 1);
INSERT INTO parent VALUES (3, 'c');
