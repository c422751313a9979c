require ["include", "variables", "replace", "enclose"];
global "a";
include :optional :once "other";
set "global.a" "b";
return;
