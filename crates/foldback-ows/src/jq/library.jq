# What every expression may call that is not native, in jq. Each says what jq 1.8 says by the name.

def error(message): message | error;
def map(f): [.[] | f];
def map_values(f): .[] |= f;
def select(f): if f then . else empty end;
def recurse(f): def r: ., (f | r); r;
def recurse(f; cond): def r: ., (f | select(cond) | r); r;
def recurse: recurse(.[]?);
def values: select(. != null);
def nulls: select(. == null);
def booleans: select(type == "boolean");
def numbers: select(type == "number");
def strings: select(type == "string");
def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type | . == "array" or . == "object");
def scalars: select(type | . != "array" and . != "object");
def isfinite: type == "number" and (isinfinite | not);
def finites: select(isfinite);
def normals: select(isnormal);

def add(f): reduce f as $x (null; . + $x);
def abs: if . < 0 then -. else . end;
def toarray: if type == "array" then . else [.] end;
def sort_by(f): _sort_by_impl(map([f]));
def group_by(f): _group_by_impl(map([f]));
def unique_by(f): _unique_by_impl(map([f]));
def min_by(f): _min_by_impl(map([f]));
def max_by(f): _max_by_impl(map([f]));

def paths: path(..) | select(length > 0);
def paths(f): path(.. | select(f)) | select(length > 0);
def leaf_paths: paths(scalars);
def del(f): delpaths([path(f)]);
def pick(f): . as $in | reduce path(f) as $p (null; setpath($p; $in | getpath($p)));
def to_entries: [keys_unsorted[] as $k | {key: $k, value: .[$k]}];
def from_entries:
  reduce .[] as $e ({};
    . + {($e | .key // .Key // .name // .Name): ($e | if has("value") then .value else .Value end)});
def with_entries(f): to_entries | map(f) | from_entries;
def walk(f): def w: if type == "object" then map_values(w) elif type == "array" then map(w) else . end | f; w;

def first(f): label $out | f | ., break $out;
def isempty(f): first((f | false), true);
def all(f; cond): isempty(f | cond and empty);
def any(f; cond): isempty(f | cond or empty) | not;
def all(cond): all(.[]; cond);
def any(cond): any(.[]; cond);
def all: all(.[]; .);
def any: any(.[]; .);
def limit($n; f):
  if $n > 0 then label $out | foreach f as $x ($n; . - 1; $x, if . <= 0 then break $out else empty end)
  elif $n == 0 then empty
  else error("limit doesn't support negative count") end;
def skip($n; f):
  if $n > 0 then foreach f as $x ($n; . - 1; if . < 0 then $x else empty end)
  elif $n == 0 then f
  else error("skip doesn't support negative count") end;
def last(f): (reduce f as $x ([]; [$x]) | .[]) as $x | $x;
def nth($n; f): if $n < 0 then error("nth doesn't support negative indices") else first(skip($n; f)) end;
def first: .[0];
def last: .[-1];
def nth($n): .[$n];
def until(cond; update): def r: if cond then . else update | r end; r;
def while(cond; update): def r: if cond then ., (update | r) else empty end; r;
def repeat(f): def r: f, r; r;
def range($from; $to; $by):
  if ([$from, $to, $by] | all(type == "number")) then _range($from; $to; $by)
  elif $by > 0 then $from | while(. < $to; . + $by)
  elif $by < 0 then $from | while(. > $to; . + $by)
  else empty end;
def in(f): . as $x | f | has($x);
def inside(f): . as $x | f | contains($x);
def combinations:
  if length == 0 then [] else .[0][] as $x | (.[1:] | combinations) as $y | [$x] + $y end;
def combinations(n): . as $dot | [range(n) | $dot] | combinations;
def transpose: [range(0; map(length) | max // 0) as $i | [.[][$i]]];
def flatten($depth): if $depth < 0 then error("flatten depth must not be negative") else _flatten($depth) end;
def flatten: _flatten(-1);

def indices($i):
  if type == "array" and ($i | type) == "array" then .[$i]
  elif type == "array" then .[[$i]]
  elif type == "string" and ($i | type) == "string" then _strindices($i)
  else .[$i] end;
def index($i): indices($i) | .[0];
def rindex($i): indices($i) | .[-1:][0];
def ltrimstr($part): if startswith($part) then .[$part | length:] end;
def rtrimstr($part): if endswith($part) then .[:length - ($part | length)] end;
def trimstr($part): ltrimstr($part) | rtrimstr($part);

def _flagged: type as $t
  | if $t == "string" then [., null]
    elif $t == "array" and length > 1 then [.[0], .[1]]
    elif $t == "array" and length > 0 then [.[0], null]
    else error($t + " not a string or array") end;
def match(re; flags): _match_impl(re; flags; false) | .[];
def match($re): ($re | _flagged) as [$r, $f] | match($r; $f);
def test(re; flags): _match_impl(re; flags; true);
def test($re): ($re | _flagged) as [$r, $f] | test($r; $f);
def capture(re; flags):
  match(re; flags) | reduce (.captures[] | select(.name != null)) as $c ({}; .[$c.name] = $c.string);
def capture($re): ($re | _flagged) as [$r, $f] | capture($r; $f);
def scan($re; $flags): match($re; "g" + $flags) | if (.captures | length) > 0 then [.captures[].string] else .string end;
def scan($re): scan($re; null);
def splits($re; $flags): _gsub_parts($re; $flags + "g")[] | .[0];
def splits($re): splits($re; null);
def split($re; $flags): [splits($re; $flags)];
def sub($re; f; $flags):
  . as $in
  | ([_gsub_parts($re; $flags)[] | if length == 2 then [.[0], (.[1] | [f])] else . end] | _assembled[]) // $in;
def sub($re; f): sub($re; f; "");
def gsub($re; f; $flags): sub($re; f; $flags + "g");
def gsub($re; f): sub($re; f; "g");

def gmtime: _date("gmtime"; null);
def mktime: _date("mktime"; null);
def strftime($format): _date("strftime"; $format);
def strptime($format): _date("strptime"; $format);
def todateiso8601: strftime("%Y-%m-%dT%H:%M:%SZ");
def fromdateiso8601: strptime("%Y-%m-%dT%H:%M:%SZ") | mktime;
def todate: todateiso8601;
def fromdate: fromdateiso8601;

def truncate_stream(f):
  . as $n | null | f | . as $in | if (.[0] | length) > $n then setpath([0]; $in[0][$n:]) else empty end;
def fromstream(f):
  {x: null, e: false} as $init
  | foreach f as $i ($init;
      if .e then $init else . end
      | if $i | length == 2
        then setpath(["e"]; $i[0] | length == 0) | setpath(["x"] + $i[0]; $i[1])
        else setpath(["e"]; $i[0] | length == 1) end;
      if .e then .x else empty end);
def tostream:
  path(def r: (.[]? | r), .; r) as $p
  | getpath($p)
  | reduce path(.[]?) as $q ([$p, .]; [$p + $q]);

def INDEX(f; name): reduce f as $row ({}; .[$row | name | tostring] = $row);
def INDEX(name): INDEX(.[]; name);
def JOIN($index; name): [.[] | [., $index[name]]];
def JOIN($index; f; name): f | [., $index[name]];
def JOIN($index; f; name; g): f | [., $index[name]] | g;
def IN(f): any(f == .; .);
def IN(f; g): any(f == g; .);
