%% What tests/bench/bench_local.py does, in Erlang: the second peer of its figures, where erl is installed.
%%
%%     erl -noshell -pa DIR -run local_peer main FIGURE COUNT
%%
%% Prints one number. A message is {Topic, From, Map}; the VM copies the map as it is sent, but not
%% the binary of 100 bytes in it, which is shared.
-module(local_peer).
-export([main/1, idle/0]).

main([Figure, Count]) ->
    Number = run(Figure, list_to_integer(Count)),
    io:format("~w~n", [Number]),
    halt(0).

run("local_ping_pong", Count) ->
    ping_pong(Count div 20),
    Count / seconds(fun() -> ping_pong(Count) end);
run("local_one_way", Count) ->
    one_way(Count div 20),
    Count / seconds(fun() -> one_way(Count) end);
run("spawn", Count) ->
    Count / seconds(fun() -> spawn_many(Count) end);
run("bytes_per_process", Count) ->
    spawn_many(Count div 100),
    Before = resident(),
    spawn_many(Count),
    (resident() - Before) / Count.

seconds(Work) ->
    {Micro, _} = timer:tc(Work),
    Micro / 1.0e6.

data() ->
    binary:copy(<<"x">>, 100).

ping_pong(Count) ->
    Echo = spawn_link(fun echo/0),
    Data = data(),
    ping(Echo, 1, Count, Data),
    unlink(Echo),
    exit(Echo, kill).

ping(_Echo, Id, Count, _Data) when Id > Count ->
    ok;
ping(Echo, Id, Count, Data) ->
    Echo ! {<<"ping">>, self(), #{<<"id">> => Id, <<"data">> => Data}},
    receive
        {_Topic, _From, #{<<"id">> := Id}} -> ping(Echo, Id + 1, Count, Data)
    end.

echo() ->
    receive
        {_Topic, From, Value} ->
            From ! {<<"pong">>, self(), Value},
            echo()
    end.

one_way(Count) ->
    Self = self(),
    Sink = spawn_link(fun() -> sink(Count, 0, Self) end),
    source(Sink, 1, Count, data()),
    receive
        {<<"done">>, Sink, _Sum} -> ok
    end.

source(_Sink, Id, Count, _Data) when Id > Count ->
    ok;
source(Sink, Id, Count, Data) ->
    Sink ! {<<"item">>, self(), #{<<"id">> => Id, <<"data">> => Data}},
    source(Sink, Id + 1, Count, Data).

sink(0, Sum, Parent) ->
    Parent ! {<<"done">>, self(), Sum};
sink(Left, Sum, Parent) ->
    receive
        {_Topic, _From, #{<<"id">> := Id}} -> sink(Left - 1, Sum + Id, Parent)
    end.

spawn_many(0) ->
    ok;
spawn_many(Count) ->
    spawn(?MODULE, idle, []),
    spawn_many(Count - 1).

idle() ->
    receive
        _ -> ok
    end.

resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_Size, Pages | _] = binary:split(Text, <<" ">>, [global]),
    binary_to_integer(Pages) * 4096.
