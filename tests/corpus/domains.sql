-- Domains over arrays and domains; NOT NULL, defaults, several constraints, one not valid.
CREATE DOMAIN lists AS int[] CHECK (array_length(VALUE, 1) < 5);
CREATE DOMAIN positive AS int DEFAULT 1 NOT NULL CONSTRAINT is_positive CHECK (VALUE > 0);
CREATE DOMAIN small AS positive CONSTRAINT is_small CHECK (VALUE < 10) CONSTRAINT is_odd CHECK (VALUE % 2 = 1);
CREATE DOMAIN loose AS text;
CREATE TABLE t (b lists, c small, d loose);
INSERT INTO t VALUES ('{1,2}', 3, 'bad'), (NULL, 5, NULL);
ALTER DOMAIN loose ADD CONSTRAINT later CHECK (VALUE <> 'bad') NOT VALID;
