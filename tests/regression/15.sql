-- database: regression
-- in place
-- check: aclitem
-- check: does not take TABLE gtest_normal_child:
-- differs by dump: Name: gtestxx_4; Type: TABLE;
-- differs by dump: Name: test_type_diff2_c1; Type: TABLE;
-- differs by dump: Name: test_type_diff2_c2; Type: TABLE;

-- Of a child that was made first, pg_dump gives the columns the parent's order: PostgreSQL's own AdjustDump.pm does so, too.

-- pg_upgrade of 16 and later, "Your installation contains the "aclitem" data type in user tables".
ALTER TABLE tab_core_types DROP COLUMN aclitem;

-- 16 and later, from either method: "child column "b" specifies generation expression".
DROP TABLE gtest_normal_child, gtest_normal_child2;
