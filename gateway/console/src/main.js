// The console of a Tidemark node. Each part draws itself; here they are put together.

import "./token.js";
import "./map.js";
import "./nodes.js";
import "./plots.js";
import "./databases.js";
import "./query.js";
import "./stale.js";
import "./slow.js";
import { watch } from "./cluster.js";

void watch();
