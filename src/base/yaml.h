/* yaml - configuration files into the JSON tree (libyaml underneath): one configuration language, JSON accepted
 *
 * Plain scalars are typed as YAML 1.2 core (null, true, false, integers, floats), all others are strings.
 * Refused by line number: aliases, anchors, tags, duplicate keys, several documents, depth over 64.
 */
#ifndef BASE_YAML_H
#define BASE_YAML_H

#include "base/json.h"

MUST_USE enum status yaml_parse(const struct json **out, struct arena *arena, struct str text, struct error *err);

#endif
