Feature: Flow
  Loops, choices, branches, and where it goes after a task.

  Scenario: A loop inside a loop stops while its condition holds no more
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: nested, version: '1.0.0' }
    do:
      - rows:
          for: { each: row, in: '[[1, 2, 3], [4, 5, 6]]' }
          do:
            - cells:
                for: { each: cell, in: '$row', at: column }
                while: ((.sum // 0) < 9)
                do:
                  - add: { set: { sum: '${ (.sum // 0) + $cell }', last: '${ $column }' } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    sum: 10
    last: 0
    """
    And the key 'rows[1]/cells[0]/add' should be in the log
    And the decision 'rows[1]/cells[1]!while' should have chosen 'stop'

  Scenario: A switch takes its default where no case holds, wherever it stands
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: default, version: '1.0.0' }
    do:
      - choose:
          switch:
            - otherwise: { then: plain }
            - red: { when: .color == "red", then: red }
      - red: { set: { chose: red }, then: end }
      - plain: { set: { chose: plain } }
    """
    And given the workflow input is:
    """yaml
    color: red
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    chose: red
    """
    And the decision 'choose' should have chosen 'red'
    And plain should not run

  Scenario: A switch without a case that holds goes on to the next task
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: none, version: '1.0.0' }
    do:
      - choose: { switch: [red: { when: .color == "red", then: end }] }
      - next: { set: { came: here } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    came: here
    """
    And the decision 'choose' should have chosen '(none)'

  Scenario: Exit ends the list of tasks in which it stands
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: exit, version: '1.0.0' }
    do:
      - inner:
          do:
            - first: { set: { n: 1 }, then: exit }
            - second: { set: { n: 2 } }
      - after: { set: { n: '${ .n + 10 }' } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    n: 11
    """
    And second should not run

  Scenario: In a loop, exit ends the iteration and not the loop
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: exit-loop, version: '1.0.0' }
    do:
      - each:
          for: { each: n, in: '[1, 2, 3]' }
          do:
            - count: { set: { seen: '${ (.seen // []) + [$n] }' }, then: exit }
            - never: { set: { seen: [] } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    seen: [1, 2, 3]
    """

  Scenario: The output of a fork is the list of its branches' outputs, in their order
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: fork, version: '1.0.0' }
    do:
      - both:
          fork:
            branches:
              - slow: { do: [pause: { wait: { milliseconds: 30 } }, give: { set: { who: slow } }] }
              - quick: { set: { who: quick } }
              - third: { set: { who: third } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    - who: slow
    - who: quick
    - who: third
    """

  Scenario: Each visit of a task has a key of its own
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: visits, version: '1.0.0' }
    do:
      - draft: { set: { n: '${ (.n // 0) + 1 }' } }
      - judge: { switch: [again: { when: .n < 3, then: draft }] }
      - close: { set: { drafts: '${ $steps.draft.n }' } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    drafts: 3
    """
    And the key 'draft#2' should be in the log
    And the key 'draft#3' should be in the log
    And the decision 'judge#2' should have chosen 'again'

  Scenario: In a race the first branch that completes wins
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: race, version: '1.0.0' }
    do:
      - race:
          fork:
            compete: true
            branches:
              - slow: { do: [ nap: { wait: { seconds: 30 } }, late: { set: { won: slow } } ] }
              - quick: { set: { won: quick } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    won: quick
    """
