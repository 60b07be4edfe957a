-- Arrays with other bounds, of more dimensions, with nulls and what looks like them, of composites and of quotes.
CREATE TABLE t (a int[], b text[][], c box[], d bytea[], e oidvector, f int2vector);
INSERT INTO t VALUES ('[-2:0]={1,2,3}', '{{a,NULL},{"NULL","it''s \"x\" \\"}}', '{(1,1),(0,0);(2,2),(1,1)}', ARRAY['\x00'::bytea, NULL], '1 2', '3 4'),
    ('{}', '{}', NULL, '{}', '', ''), ('[3:3][5:6]={{1,2}}', '{" ",","}', '{}', NULL, NULL, NULL);
