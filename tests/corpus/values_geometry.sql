-- Geometry with infinities and fractions that must come back to the last bit.
CREATE TABLE t (a point, b line, c lseg, d box, e path, f polygon, g circle);
INSERT INTO t VALUES ('(0.1,1e300)', '{1,-1,0.30000000000000004}', '[(0,0),(1,1e-300)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))', '<(0,0),Infinity>'), ('(NaN,Infinity)', NULL, NULL, NULL, '((0,0))', NULL, NULL);
