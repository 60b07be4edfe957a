-- CHECK that is not inherited, one that was merged, and one that a child has under the same name.
CREATE TABLE parent (a int, CONSTRAINT mine CHECK (a > 0) NO INHERIT, CONSTRAINT ours CHECK (a < 100));
CREATE TABLE child (a int, CONSTRAINT ours CHECK (a < 100), CONSTRAINT mine CHECK (a > -5));
ALTER TABLE child INHERIT parent;
INSERT INTO child VALUES (-1);
