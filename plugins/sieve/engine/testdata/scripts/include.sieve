require ["include", "variables"];
global "a";
include :optional :once "other";
set "global.a" "b";
return;
