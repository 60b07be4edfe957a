-- differs by dump: reordered
-- The same of wide children with toasted rows, and of one whose inherited column is local as well.
CREATE TABLE parent (z int, a text, m jsonb);
CREATE TABLE child (m jsonb, reordered text, a text, z int);
ALTER TABLE child INHERIT parent;
INSERT INTO child SELECT jsonb_build_object('n', n), 'r', repeat('x', 5000), n FROM generate_series(1, 20) n;
