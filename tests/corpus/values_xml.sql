-- XML: documents with a prolog and a DTD, contents that are no document, names of encodings that are not so any more.
CREATE TABLE t (a xml);
INSERT INTO t VALUES (XMLPARSE(DOCUMENT '<?xml version="1.0" encoding="ISO-8859-1"?><a b="&quot;">ä</a>')), (XMLPARSE(CONTENT 'text <b/> and <c/>')),
    (XMLPARSE(DOCUMENT '<!DOCTYPE x [<!ENTITY e "v">]><x>y</x>')), (XMLPARSE(CONTENT ''));
