-- Domains over composites, arrays and domains; NOT NULL, defaults, several constraints, one not valid.
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN named AS pair CHECK ((VALUE).a IS NULL OR (VALUE).a > 0);
CREATE DOMAIN lists AS int[] CHECK (array_length(VALUE, 1) < 5);
CREATE DOMAIN positive AS int DEFAULT 1 NOT NULL CONSTRAINT is_positive CHECK (VALUE > 0);
CREATE DOMAIN small AS positive CONSTRAINT is_small CHECK (VALUE < 10) CONSTRAINT is_odd CHECK (VALUE % 2 = 1);
CREATE DOMAIN loose AS text;
CREATE TABLE t (a named, b lists, c small, d loose, e named[]);
INSERT INTO t VALUES ((1, 'x'), '{1,2}', 3, 'bad', ARRAY[(2, 'y')::named]), (NULL, NULL, 5, NULL, '{}');
ALTER DOMAIN loose ADD CONSTRAINT later CHECK (VALUE <> 'bad') NOT VALID;
