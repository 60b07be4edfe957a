-- database: regression
-- in place
-- differs by dump: Name: gtestxx_4; Type: TABLE;
-- differs by dump: Name: test_type_diff2_c1; Type: TABLE;
-- differs by dump: Name: test_type_diff2_c2; Type: TABLE;

-- As of 15.
