-- since: 14
-- Ranges and multiranges of one's own: with a canonical form, a difference, a collation, a name for the multirange.
CREATE TYPE float_range AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = many_floats);
CREATE TYPE text_range AS RANGE (subtype = text, collation = "C");
CREATE TABLE t (a float_range, b many_floats, c text_range, d int4multirange, e tstzrange, f numrange);
INSERT INTO t VALUES ('[0.1,)', '{[1,2),(3,4]}', '["a b",c\,d)', '{[1,3),[5,7)}', '(,infinity]', 'empty'), (NULL, '{}', '(,)', '{}', 'empty', '[NaN,NaN]');
CREATE INDEX ON t USING gist (a);
