Feature: Tries
  What becomes of an error: it is tried again, caught, told to a handler, or goes outward.

  Scenario: A step that fails twice is tried again until it answers
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: retry, version: '1.0.0' }
    do:
      - guarded:
          try:
            - ask:
                call: http
                with: { method: get, endpoint: 'https://flaky.example.com/fails/2/again' }
          catch:
            errors: { with: { status: 503 } }
            retry:
              delay: { milliseconds: 10 }
              backoff: { exponential: {} }
              limit: { attempt: { count: 3 } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    times: 3
    method: GET
    """
    And the key 'guarded!3/ask' should be in the log
    And the decision 'guarded!catch' should have chosen 'retry'
    And the decision 'guarded!2!catch' should have chosen 'retry'

  Scenario: Retries that are used up go outward without a handler
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: spent, version: '1.0.0' }
    do:
      - guarded:
          try:
            - ask:
                call: http
                with: { method: get, endpoint: 'https://flaky.example.com/fails/9/spent' }
          catch:
            retry: { limit: { attempt: { count: 1 } } }
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    status: 503
    type: https://open-workflow-specification.org/dsl/errors/types/communication
    instance: /do/0/guarded/try/0/ask
    """
    And the decision 'guarded!2!catch' should have chosen 'uncaught'

  Scenario: After a caught error the workflow goes on
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: go-on, version: '1.0.0' }
    do:
      - guarded:
          try:
            - fails: { raise: { error: { type: 'https://example.com/stale', status: 409, title: Stale } } }
            - notReached: { set: { reached: true } }
          catch:
            errors: { with: { type: 'https://example.com/stale' } }
            as: problem
            do:
              - mend: { set: { because: '${ $problem.title }' } }
      - goOn: { set: '${ . + { done: true } }' }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    because: Stale
    done: true
    """
    And notReached should not run
    And goOn should run last

  Scenario: An error that the filter does not name is not caught
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: filter, version: '1.0.0' }
    do:
      - guarded:
          try:
            - fails: { raise: { error: { type: 'https://example.com/other', status: 500, title: Other } } }
          catch:
            errors: { with: { type: 'https://example.com/stale' } }
            do:
              - mend: { set: { mended: true } }
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: https://example.com/other
    title: Other
    """
    And mend should not run

  Scenario: A handler may lead elsewhere
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: elsewhere, version: '1.0.0' }
    do:
      - guarded:
          try:
            - ask:
                call: http
                with: { method: get, endpoint: 'https://petstore.swagger.io/v2/nowhere' }
          catch:
            errors: { with: { status: 404 } }
            then: otherwise
      - usual: { set: { way: usual }, then: end }
      - otherwise: { set: { way: otherwise } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    way: otherwise
    """
    And usual should not run

  Scenario: A timeout is an error that can be caught
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: late, version: '1.0.0' }
    do:
      - guarded:
          try:
            - patient:
                timeout: { after: { milliseconds: 20 } }
                do:
                  - nap: { wait: { seconds: 30 } }
          catch:
            errors: { with: { type: 'https://open-workflow-specification.org/dsl/errors/types/timeout', status: 408 } }
            as: late
            do:
              - tell: { set: { status: '${ $late.status }' } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    status: 408
    """

  Scenario: A workflow that takes too long fails
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: too-long, version: '1.0.0' }
    timeout: { after: { milliseconds: 20 } }
    do:
      - nap: { wait: { seconds: 30 } }
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: https://open-workflow-specification.org/dsl/errors/types/timeout
    status: 408
    """
