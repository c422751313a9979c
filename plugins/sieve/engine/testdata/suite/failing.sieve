require "ihave";
discard;
error "enough";
