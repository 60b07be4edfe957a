-- database: regression
-- in place
-- differs by dump: Name: gtestxx_4; Type: TABLE;
-- differs by dump: Name: test_type_diff2_c1; Type: TABLE;
-- differs by dump: Name: test_type_diff2_c2; Type: TABLE;
-- differs across majors: Name: brintest; Type: TABLE DATA;
-- differs across majors: Name: brintest_multi; Type: TABLE DATA;
-- differs across majors: Name: brintest_bloom; Type: TABLE DATA;

-- The order of columns is as in 15.sql. 19 writes a pg_lsn with all zeros of its second half. Nothing need be dropped.
